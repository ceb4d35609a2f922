import { KAFKA_VERSION } from '../support/kafka/server.ts';
import { describeFaults } from './suite.ts';

describeFaults({ postgres: 18, kafka: KAFKA_VERSION });
