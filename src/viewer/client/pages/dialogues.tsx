// A table of dialogues: what became of each.
import type { DialogueView } from '../../api.ts';
import { Line, number, Table } from '../parts.tsx';
import { href } from '../route.ts';

export function Dialogues({ run, dialogues }: { run: string; dialogues: readonly DialogueView[] }) {
  return (
    <Table
      caption="Dialogues"
      head={[
        'dialogue',
        'outcome',
        '#reward',
        '#score',
        '#token share',
        '#R_loss',
        '#tokens',
        '#turns',
        'trained on',
        'open cases',
      ]}
    >
      {dialogues.map((dialogue) => {
        const { id, outcome, failure, reward, taskScore, terms, tokens, turns, kept, edgeCases, format } =
          dialogue;
        return (
          <tr key={id}>
            <th scope="row" class="mono">
              <a href={href(['run', run, 'dialogue', id])}>{id.slice(id.lastIndexOf('/') + 1)}</a>
            </th>
            <td class={outcome === 'failed' ? 'worse' : ''}>
              {outcome ?? 'under way'}
              {failure !== null && (
                <small>
                  <Line value={failure} />
                </small>
              )}
            </td>
            <td class="number">{number(reward)}</td>
            <td class="number">{number(taskScore, 2)}</td>
            <td class="number">{number(terms?.tokenShare, 2)}</td>
            <td class="number">{number(terms?.loss, 2)}</td>
            <td class="number">{tokens}</td>
            <td class="number">{turns}</td>
            <td>{kept === true ? 'yes' : kept === false ? 'no' : '–'}</td>
            <td>{[...edgeCases, ...(format === null ? [] : [`format: ${format}`])].join(', ')}</td>
          </tr>
        );
      })}
    </Table>
  );
}
