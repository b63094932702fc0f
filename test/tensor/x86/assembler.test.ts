// Instructions against what GNU's assembler makes of them.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import * as x86 from '../../../src/tensor/x86/assembler.ts';

const { at, indexed, rax, rbp, rcx, rdi, rsi, rsp, r8, r9, r10, r12, r13, r14, r15 } = x86;

const encodings: readonly (readonly [string, x86.Code, string])[] = [
  ['mov rax, [rbp-8]', x86.move(rax, at(rbp, -8)), '48 8b 45 f8'],
  ['mov [r12+r13*4+256], r9', x86.keep(indexed(r12, r13, 4, 256), r9), '4f 89 8c ac 00 01 00 00'],
  ['mov eax, [r13]', x86.moveUnsigned(rax, at(r13)), '41 8b 45 00'],
  ['movabs r10, 0x123456789a', x86.moveNumber(r10, 0x123456789a), '49 ba 9a 78 56 34 12 00 00 00'],
  ['lea r15, [rsp+16]', x86.address(r15, at(rsp, 16)), '4c 8d 7c 24 10'],
  ['add r8, 127', x86.addNumber(r8, 127), '49 83 c0 7f'],
  ['sub rsp, 256', x86.subtractNumber(rsp, 256), '48 81 ec 00 01 00 00'],
  ['shl rcx, 6', x86.shiftLeft(rcx, 6), '48 c1 e1 06'],
  ['vmovups ymm9, [r14]', x86.load(9, at(r14)), 'c4 41 7c 10 0e'],
  ['vmovups [rdi+r9*2-4], ymm3', x86.store(indexed(rdi, r9, 2, -4), 3), 'c4 a1 7c 11 5c 4f fc'],
  ['vbroadcastss ymm14, [rax+rsi]', x86.broadcast(14, indexed(rax, rsi)), 'c4 62 7d 18 34 30'],
  ['vbroadcastss ymm2, xmm5', x86.broadcast(2, 5), 'c4 e2 7d 18 d5'],
  ['vmaskmovps ymm0, ymm3, [rcx]', x86.loadMasked(0, 3, at(rcx)), 'c4 e2 65 2c 01'],
  ['vmaskmovps [rcx], ymm15, ymm8', x86.storeMasked(at(rcx), 15, 8), 'c4 62 05 2e 01'],
  ['vaddps ymm1, ymm2, ymm13', x86.add(1, 2, 13), 'c4 c1 6c 58 cd'],
  ['vblendvps ymm1, ymm2, ymm3, ymm15', x86.blend(1, 2, 3, 15), 'c4 e3 6d 4a cb f0'],
  ['vpslld ymm7, ymm12, 23', x86.shiftLanes(7, 12, 23), 'c4 c1 45 72 f4 17'],
  ['vfmadd231ps ymm0, ymm14, [r12+64]', x86.multiplyAdd(0, 14, at(r12, 64)), 'c4 c2 0d b8 44 24 40'],
  ['vfnmadd231ps ymm8, ymm1, ymm2', x86.multiplySubtract(8, 1, 2), 'c4 62 75 bc c2'],
  ['vfmadd213ps ymm3, ymm4, [rax]', x86.timesPlus(3, 4, at(rax)), 'c4 e2 5d a8 18'],
  ['vextractf128 xmm1, ymm14, 1', x86.half(1, 14, 1), 'c4 63 7d 19 f1 01'],
  ['vshufps ymm0, ymm8, ymm10, 0x44', x86.shuffle(0, 8, 10, 0x44), 'c4 c1 3c c6 c2 44'],
  ['vperm2f128 ymm12, ymm0, ymm4, 0x31', x86.joinHalves(12, 0, 4, 0x31), 'c4 63 7d 06 e4 31'],
  ['vcvtsi2ss xmm1, xmm1, r15', x86.toFloat(1, r15), 'c4 c1 f2 2a cf'],
  ['prefetcht0 [r10+64]', x86.prefetch(at(r10, 64)), '41 0f 18 4a 40'],
  ['prefetchw [r10]', x86.prefetchToWrite(at(r10)), '41 0f 0d 0a'],
  ['vmovups zmm31, [r12+r15+64]', x86.load16(31, indexed(r12, r15, 1, 64)), '62 01 7c 48 10 7c 3c 01'],
  ['vmovups zmm17, zmm30', x86.load16(17, 30), '62 81 7c 48 10 ce'],
  ['vmovups [r13+128], zmm23', x86.store16(at(r13, 128), 23), '62 c1 7c 48 11 7d 02'],
  ['vmovups [rax-4], zmm3', x86.store16(at(rax, -4), 3), '62 f1 7c 48 11 98 fc ff ff ff'],
  ['vbroadcastss zmm26, [rdi+508]', x86.broadcast16(26, at(rdi, 508)), '62 62 7d 48 18 57 7f'],
  ['vfmadd231ps zmm23, zmm29, zmm25', x86.multiplyAdd16(23, 29, 25), '62 82 15 40 b8 f9'],
  ['vpxord zmm20, zmm20, zmm20', x86.clear16(20), '62 a1 5d 40 ef e4'],
  ['vpmovzxwd zmm24, [r12+r15+32]', x86.loadWords16(24, indexed(r12, r15, 1, 32)), '62 02 7d 48 33 44 3c 01'],
  ['vpslld zmm24, zmm25, 16', x86.shiftLanes16(24, 25, 16), '62 91 3d 40 72 f1 10'],
  ['vmovups zmm22{k1}{z}, [r10+64]', x86.loadMasked16(22, 1, at(r10, 64)), '62 c1 7c c9 10 72 01'],
  ['vmovups [r13+64]{k1}, zmm5', x86.storeMasked16(at(r13, 64), 1, 5), '62 d1 7c 49 11 6d 01'],
  ['kmovw k1, [rax+r10*4+100]', x86.setMask(1, indexed(rax, r10, 4, 100)), 'c4 a1 78 90 4c 90 64'],
];

for (const [text, code, bytes] of encodings) {
  test(text, () => {
    assert.is(code.map((byte) => byte.toString(16).padStart(2, '0')).join(' '), bytes);
  });
}

test('a loop jumps over its body when nothing is left, and back to its start', () => {
  const body = [0x90, 0x90];
  const code = x86.countDown(rax, 1, body);
  const compare = [0x48, 0x83, 0xf8, 0x01]; // cmp rax, 1
  const turn = [...body, 0x48, 0x83, 0xe8, 0x01, ...compare]; // sub rax, 1
  const back = 0x100 - turn.length - 6;
  assert.equal(
    [...code],
    [...compare, 0x0f, 0x8c, turn.length + 6, 0, 0, 0, ...turn, 0x0f, 0x8d, back, 0xff, 0xff, 0xff],
  );
});

test.run();
