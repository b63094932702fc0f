// The statecharts that lead a run, and the state that each of its actors is in.
import type { ActorView } from '../../api.ts';
import { ChartView } from '../chart.tsx';
import { Shown } from '../parts.tsx';
import { usePoll } from '../poll.ts';
import { useAnswer } from '../source.ts';
import { RunTabs } from './run.tsx';

export function Machines({ run }: { run: string }) {
  usePoll(2000);
  const answer = useAnswer('/api/runs/{run}/machines', { run });
  return (
    <>
      <RunTabs run={run} here="machines" />
      <Shown answer={answer}>
        {({ charts, actors }) => (
          <>
            <p class="faint">
              Drawn from the definitions that the run is led by. A dot marks where a machine begins, a double
              line where it ends; those of a dialogue show their states on its page.
            </p>
            <div class="charts">
              {charts.map((chart) => (
                <ChartView key={chart.id} chart={chart} current={statesOf(actors, chart.id)} />
              ))}
            </div>
            <h2>Actors of the run</h2>
            <ul class="actor-states">
              {actors.map(({ name, machine, state, note }) => (
                <li key={`${machine} ${name}`}>
                  <b>{name}</b> {state}
                  {note !== '' && <small class="faint">{note}</small>}
                </li>
              ))}
            </ul>
          </>
        )}
      </Shown>
    </>
  );
}

const statesOf = (actors: readonly ActorView[], machine: string): string[] => [
  ...new Set(actors.flatMap((actor) => (actor.machine === machine ? actor.state : []))),
];
