import { expect, test } from 'bun:test';
import { type SlotWarning, SlotWarnings } from '../../../src/status/slot-warnings.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';
import { createStatus } from '../../support/service/statuses.ts';

const warning = (code: string, subject: string, message = `${subject} is wrong`): SlotWarning => ({
  code,
  subject,
  message,
  advice: 'Run SQL',
});

/** Event, code and subject of every line since the last call. */
function observe() {
  const { logger, lines } = recordingLogger();
  const seen = () => lines.splice(0).map(({ level, event, code, subject }) => [level, event, code, subject].join(' '));
  return { logger, seen, lines };
}

test('a warning is logged when it begins and when it ends, however often it is seen', () => {
  const warnings = new SlotWarnings();
  const { logger, seen, lines } = observe();
  for (let look = 0; look < 3; look++) warnings.update('catalog', [warning('child_table', 'orders')], logger);
  expect(lines).toMatchObject([{ msg: 'orders is wrong', advice: 'Run SQL' }]);
  expect(seen()).toEqual(['warn slot_warning child_table orders']);
  expect(warnings.current).toMatchObject([{ code: 'child_table', subject: 'orders' }]);
  warnings.update('catalog', [], logger);
  warnings.update('catalog', [], logger);
  expect(lines).toMatchObject([{ msg: 'no longer: orders is wrong' }]);
  expect(seen()).toEqual(['info slot_warning_ended child_table orders']);
  expect(warnings.current).toEqual([]);
});

test('warnings of one kind differ in their subject, and a source replaces its own only', () => {
  const warnings = new SlotWarnings();
  const { logger, seen } = observe();
  warnings.update('catalog', [warning('child_table', 'orders'), warning('child_table', 'invoice')], logger);
  warnings.update('ledger', [warning('ledger_stale', 'ledger')], logger);
  warnings.update('catalog', [warning('child_table', 'invoice')], logger);
  expect(seen()).toEqual([
    'warn slot_warning child_table orders',
    'warn slot_warning child_table invoice',
    'warn slot_warning ledger_stale ledger',
    'info slot_warning_ended child_table orders',
  ]);
  expect(warnings.current.map(({ subject }) => subject)).toEqual(['invoice', 'ledger']);
});

test('a warning keeps its beginning while it holds, and gets the last text', () => {
  const warnings = new SlotWarnings();
  const { logger, seen } = observe();
  warnings.update('catalog', [warning('row_filter', 'orders', 'one')], logger);
  const since = warnings.current[0]!.sinceMs;
  warnings.update('catalog', [warning('row_filter', 'orders', 'two')], logger);
  expect(warnings.current).toEqual([{ ...warning('row_filter', 'orders', 'two'), sinceMs: since }]);
  expect(seen()).toHaveLength(1);
});

test('a process that gives the slot up forgets its warnings, and logs them again when it sees them again', () => {
  const status = createStatus();
  const { logger, seen } = observe();
  status.warnings.update('catalog', [warning('child_table', 'orders')], logger);
  status.enter('standby');
  expect(status.warnings.current).toEqual([]);
  status.enter('streaming');
  status.warnings.update('catalog', [warning('child_table', 'orders')], logger);
  expect(seen()).toEqual(['warn slot_warning child_table orders', 'warn slot_warning child_table orders']);
});
