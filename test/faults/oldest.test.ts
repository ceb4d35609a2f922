import { OLDEST_KAFKA_VERSION } from '../support/kafka/server.ts';
import { describeFaults } from './suite.ts';

describeFaults({ postgres: 14, kafka: OLDEST_KAFKA_VERSION });
