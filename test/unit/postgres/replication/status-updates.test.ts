import { describe, expect, test } from 'bun:test';
import { encodeStandbyStatusUpdate } from '../../../../src/postgres/replication/status-updates.ts';

describe('encodeStandbyStatusUpdate', () => {
  test('writes the 34 bytes of the manual', () => {
    const bytes = encodeStandbyStatusUpdate({
      written: 0x16_b374_d848n,
      flushed: 0xffff_ffff_ffff_ffffn,
      applied: 1n,
      clockMicros: -1n,
      replyRequested: true,
    });
    expect(bytes.toString('hex')).toBe(
      ['72', '00000016b374d848', 'ffffffffffffffff', '0000000000000001', 'ffffffffffffffff', '01'].join(''),
    );
  });

  test('ends in 0 when no reply is asked for', () => {
    const bytes = encodeStandbyStatusUpdate({
      written: 3n,
      flushed: 2n,
      applied: 2n,
      clockMicros: 7n,
      replyRequested: false,
    });
    expect(bytes.toString('hex')).toBe(
      ['72', '0000000000000003', '0000000000000002', '0000000000000002', '0000000000000007', '00'].join(''),
    );
  });
});
