// Every operation by which this process changes the files of a folder, one after the other: what a kill between two of them, or
// in the middle of one, leaves is what lies there then.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';

export interface Operation {
  /** From 0. */
  readonly number: number;
  readonly kind: 'open' | 'write' | 'flush' | 'rename' | 'unlink' | 'mkdir' | 'link' | 'truncate';
  /** Path in the folder; of a rename or a link the new one. */
  readonly file: string;
  /** Of a write of text: its beginning. */
  readonly text: string;
}

/** Hears of an operation before it begins and, with `half`, when a half of it is done: of the bytes, or of the files to be deleted. */
export type Listener = (operation: Operation, half: boolean) => void;

// biome-ignore lint/suspicious/noExplicitAny: whatever arguments a function of Node's has.
type Call = (...args: any[]) => any;

/** Watches the operations until what it gives back is called. What `listener` does itself is none. */
export async function watchOperations(folder: string, listener: Listener): Promise<() => void> {
  const root = path.resolve(folder);
  const files = new Map<number, string>();
  const restores: (() => void)[] = [];
  let number = 0;
  // Functions of Node's call each other: what one does within another is a part of it.
  let within = 0;
  const inside = <Result>(work: () => Result): Result => {
    within++;
    try {
      return work();
    } finally {
      within--;
    }
  };

  function replace(object: object, name: string, make: (own: Call) => Call): void {
    const own = Reflect.get(object, name) as Call;
    Reflect.set(object, name, make(own));
    restores.push(() => Reflect.set(object, name, own));
  }
  /** The operation that begins; null where it is none, or none in the folder. Gives what tells of its half. */
  function begin(kind: Operation['kind'], file: unknown, data: unknown = ''): { half(): void } | null {
    const at = typeof file === 'number' ? files.get(file) : String(file);
    if (within > 0 || at === undefined) return null;
    const relative = path.relative(root, path.resolve(at));
    if (relative.startsWith('..')) return null;
    const text = Buffer.from(data as string)
      .subarray(0, 200)
      .toString('latin1');
    const operation = { number: number++, kind, file: relative, text };
    inside(() => listener(operation, false));
    return { half: () => inside(() => listener(operation, true)) };
  }

  const changes = (flags: unknown) => typeof flags === 'string' && flags !== 'r';
  const isThere = (file: string) => fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  const mayOpen = (file: string, flags: unknown) =>
    // To append to a file that is there changes nothing.
    changes(flags) && !(String(flags).startsWith('a') && isThere(file)) && begin('open', file);
  /** Deletes the first half of a folder's files. */
  const deleteHalf = (file: string) => {
    if (!fs.lstatSync(file).isDirectory()) return;
    const names = fs.readdirSync(file);
    for (const name of names.slice(0, (names.length + 1) >> 1))
      rmSync(path.join(file, name), { recursive: true });
  };
  const { rmSync, writeSync } = fs;

  replace(fs, 'openSync', (own) => (file, flags = 'r', mode) => {
    mayOpen(file, flags);
    const descriptor = own(file, flags, mode);
    files.set(descriptor, path.resolve(String(file)));
    return descriptor;
  });
  replace(fs, 'closeSync', (own) => (descriptor) => {
    files.delete(descriptor);
    return own(descriptor);
  });
  replace(fs, 'writeSync', (own) => (descriptor, data, ...rest) => {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    const operation = begin('write', descriptor, bytes);
    if (operation === null) return own(descriptor, data, ...rest);
    const count = own(descriptor, bytes.subarray(0, bytes.length >> 1));
    operation.half();
    return count + own(descriptor, bytes.subarray(count));
  });
  replace(fs, 'writeFileSync', (own) => (file, data, ...rest) => {
    const bytes = Buffer.from(data);
    const operation = begin('write', file, bytes);
    if (operation === null) return own(file, data, ...rest);
    const part = bytes.subarray(0, bytes.length >> 1);
    if (typeof file === 'number') writeSync(file, part);
    else inside(() => own(file, part));
    operation.half();
    return inside(() => own(file, typeof file === 'number' ? bytes.subarray(part.length) : bytes));
  });
  for (const [name, kind, which] of [
    ['fsyncSync', 'flush', 0],
    ['ftruncateSync', 'truncate', 0],
    ['renameSync', 'rename', 1],
    ['mkdirSync', 'mkdir', 0],
    ['symlinkSync', 'link', 1],
    ['linkSync', 'link', 1],
    ['copyFileSync', 'link', 1],
    ['unlinkSync', 'unlink', 0],
  ] as const) {
    replace(fs, name, (own) => (...args) => {
      begin(kind, args[which]);
      return inside(() => own(...args));
    });
  }
  replace(fs, 'rmSync', (own) => (file, options) => {
    const operation = isThere(file) ? begin('unlink', file) : null;
    if (operation !== null && fs.lstatSync(file).isDirectory()) {
      inside(() => deleteHalf(file));
      operation.half();
    }
    return inside(() => own(file, options));
  });

  const { promises } = fs;
  for (const [name, kind, which] of [
    ['rename', 'rename', 1],
    ['mkdir', 'mkdir', 0],
  ] as const) {
    replace(promises, name, (own) => (...args) => {
      begin(kind, args[which]);
      return own(...args);
    });
  }
  replace(promises, 'rm', (own) => (file, options) => {
    const operation = isThere(file) ? begin('unlink', file) : null;
    if (operation !== null && fs.lstatSync(file).isDirectory()) {
      inside(() => deleteHalf(file));
      operation.half();
    }
    return own(file, options);
  });
  replace(promises, 'open', (own) => async (file, flags, mode) => {
    mayOpen(file, flags);
    const handle = await own(file, flags, mode);
    files.set(handle.fd, path.resolve(String(file)));
    return handle;
  });
  const anyHandle = await promises.open(process.execPath, 'r');
  const handles = Object.getPrototypeOf(anyHandle);
  await anyHandle.close();
  replace(
    handles,
    'writeFile',
    (own) =>
      async function (this: fs.promises.FileHandle, data: string | Uint8Array) {
        const bytes = Buffer.from(data as string);
        const operation = begin('write', this.fd, bytes);
        if (operation === null) return own.call(this, data);
        const half = bytes.length >> 1;
        await own.call(this, bytes.subarray(0, half));
        operation.half();
        return own.call(this, bytes.subarray(half));
      },
  );
  replace(
    handles,
    'sync',
    (own) =>
      async function (this: fs.promises.FileHandle) {
        begin('flush', this.fd);
        return own.call(this);
      },
  );
  syncBuiltinESMExports();
  return () => {
    for (const restore of restores.reverse()) restore();
    syncBuiltinESMExports();
  };
}
