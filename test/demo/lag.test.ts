import { expect, test } from 'bun:test';
import { LagMeter } from './lag.ts';

test('LagMeter returns no lag until the slot exists', () => {
  expect(new LagMeter().add({ timeMs: 0, currentLsn: 100, confirmedLsn: undefined })).toBeUndefined();
});

test('LagMeter counts seconds from the oldest unconfirmed WAL end', () => {
  const meter = new LagMeter();
  expect(meter.add({ timeMs: 0, currentLsn: 100, confirmedLsn: 100 })).toEqual({ bytes: 0, seconds: 0 });
  expect(meter.add({ timeMs: 1_000, currentLsn: 200, confirmedLsn: 100 })).toEqual({ bytes: 100, seconds: 0 });
  expect(meter.add({ timeMs: 2_000, currentLsn: 300, confirmedLsn: 100 })).toEqual({ bytes: 200, seconds: 1 });
  expect(meter.add({ timeMs: 3_000, currentLsn: 300, confirmedLsn: 200 })).toEqual({ bytes: 100, seconds: 1 });
  expect(meter.add({ timeMs: 4_000, currentLsn: 300, confirmedLsn: 300 })).toEqual({ bytes: 0, seconds: 0 });
  expect(meter.add({ timeMs: 9_000, currentLsn: 400, confirmedLsn: 300 })).toEqual({ bytes: 100, seconds: 0 });
});

test('LagMeter counts from samples before the slot existed', () => {
  const meter = new LagMeter();
  meter.add({ timeMs: 0, currentLsn: 100, confirmedLsn: undefined });
  expect(meter.add({ timeMs: 500, currentLsn: 100, confirmedLsn: 50 })).toEqual({ bytes: 50, seconds: 0.5 });
});
