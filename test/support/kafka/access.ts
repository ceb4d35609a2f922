/** ACLs and passwords of the users of a test broker. */
import { pbkdf2Sync, randomBytes } from 'node:crypto';
import {
  type Acl,
  type AclOperationLabel,
  AclOperations,
  AclPermissionTypes,
  alterUserScramCredentialsV0,
  Connection,
  ResourcePatternTypes,
  ResourceTypes,
} from '@platformatic/kafka';
import { waitFor } from '../process/wait.ts';
import { withAdmin } from './topics.ts';

/** One operation that a user is allowed, as an ACL. */
export interface KafkaRight {
  readonly user: string;
  /** The service needs WRITE and DESCRIBE on its topics, and DESCRIBE_CONFIGS to learn their limits */
  readonly operation: AclOperationLabel;
  /** Without it the ACL is for the cluster, as IDEMPOTENT_WRITE is */
  readonly topic?: string | undefined;
}

/** Changes ACLs and passwords; ACLs take effect only on a broker with `authorizer`. */
export interface KafkaAccess {
  /** Creates ACLs; resolves when the broker applies them */
  allow(...rights: readonly KafkaRight[]): Promise<void>;
  /** Deletes ACLs that `allow` created; resolves when the broker has dropped them */
  withdraw(...rights: readonly KafkaRight[]): Promise<void>;
  /** Changes the SCRAM password; open connections stay open, and PLAIN keeps the password of the start */
  setScramPassword(user: string, password: string): Promise<void>;
}

/** Broker settings: every user needs ACLs, except unauthenticated clients, which are the tests and the broker itself. */
export const AUTHORIZER_SETTINGS: Readonly<Record<string, string>> = {
  'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
  'super.users': 'User:ANONYMOUS',
};

const SCRAM_ITERATIONS = 4096;
/** SCRAM mechanisms: id in the protocol, hash, and its length */
const SCRAM_MECHANISMS = [
  { mechanism: 1, hash: 'sha256', hashBytes: 32 },
  { mechanism: 2, hash: 'sha512', hashBytes: 64 },
] as const;

/** Administers the users of the broker at 127.0.0.1 and this port. */
export function kafkaAccess(port: number): KafkaAccess {
  const bootstraps = [`127.0.0.1:${port}`];
  const waitUntil = (rights: readonly Acl[], known: boolean): Promise<void> =>
    withAdmin(bootstraps, async (admin) => {
      for (const right of rights) {
        await waitFor(`rights of ${right.principal}`, async () => {
          return (await admin.describeAcls({ filter: right })).length > 0 === known;
        });
      }
    });
  return {
    async allow(...rights) {
      const creations = rights.map(aclOf);
      await withAdmin(bootstraps, (admin) => admin.createAcls({ creations }));
      await waitUntil(creations, true);
    },
    async withdraw(...rights) {
      const filters = rights.map(aclOf);
      await withAdmin(bootstraps, (admin) => admin.deleteAcls({ filters }));
      await waitUntil(filters, false);
    },
    async setScramPassword(user, password) {
      const connection = new Connection('cdc-notifier-test-admin');
      await connection.connect('127.0.0.1', port);
      try {
        // One request may name a user once.
        for (const { mechanism, hash, hashBytes } of SCRAM_MECHANISMS) {
          const salt = randomBytes(16);
          const saltedPassword = pbkdf2Sync(password, salt, SCRAM_ITERATIONS, hashBytes, hash);
          const credential = { name: user, mechanism, iterations: SCRAM_ITERATIONS, salt, saltedPassword };
          await alterUserScramCredentialsV0.api.async(connection, [], [credential]);
        }
      } finally {
        await connection.close();
      }
    },
  };
}

function aclOf({ user, operation, topic }: KafkaRight): Acl {
  return {
    resourceType: topic === undefined ? ResourceTypes.CLUSTER : ResourceTypes.TOPIC,
    resourceName: topic ?? 'kafka-cluster',
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: `User:${user}`,
    host: '*',
    operation: AclOperations[operation],
    permissionType: AclPermissionTypes.ALLOW,
  };
}
