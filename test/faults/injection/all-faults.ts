/** All faults, and combinations of them. */
import { CLUSTER_FAULTS } from './cluster-faults.ts';
import { BUSY, type Fault } from './fault.ts';
import { KAFKA_FAULTS } from './kafka-faults.ts';
import { LOSS_FAULTS } from './loss-faults.ts';
import { networkFaults } from './network-faults.ts';
import { POSTGRES_FAULTS } from './postgres-faults.ts';
import { SERVICE_FAULTS } from './service-faults.ts';

/** All faults; those that need the cluster come last, so that it starts late. */
export const FAULTS: readonly Fault[] = [
  ...SERVICE_FAULTS,
  ...POSTGRES_FAULTS,
  ...networkFaults('PostgreSQL', ({ servers }) => [servers.postgresProxy]),
  ...KAFKA_FAULTS,
  ...networkFaults('Kafka', ({ kafkaProxies }) => kafkaProxies),
  ...LOSS_FAULTS,
  ...CLUSTER_FAULTS,
];

/** Two or three faults of different sides at once. */
export function combine(faults: readonly Fault[], random: () => number): Fault {
  const pick = <T>(choices: readonly T[]): T => choices[Math.floor(random() * choices.length)] as T;
  const sides = ['service', 'PostgreSQL', 'Kafka'] as const;
  const omitted = pick([undefined, ...sides]);
  const chosen = sides
    .filter((side) => side !== omitted)
    .map((side) => pick(faults.filter((fault) => fault.side === side)));
  return {
    name: chosen.map(({ name }) => name).join(' + '),
    moments: [pick(BUSY.filter((moment) => chosen.every(({ moments }) => moments.includes(moment))))],
    onCluster: chosen.some(({ onCluster }) => onCluster),
    settings: Object.assign({}, ...chosen.map(({ settings }) => settings)),
    inject: async (fixture) => {
      await Promise.all(chosen.map(({ inject }) => inject(fixture)));
    },
  };
}
