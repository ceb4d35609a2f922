import { describe, expect, test } from 'bun:test';
import { LossError, SourceError } from '../../../../src/errors.ts';
import { droppedPublicationError, lossError, wrongServerError } from '../../../../src/postgres/continuity/loss.ts';

describe('errors of continuity', () => {
  const stream = { databaseRef: 'main', slot: 'cdc_slot' };

  test('lossError names the range, and the setting that accepts exactly it', () => {
    const error = lossError({ fromLsn: 0x16_b374_d848n, toLsn: 0x17_0000_0000n, details: ['one', 'two'] }, stream);
    expect(error).toBeInstanceOf(LossError);
    expect(error.message).toBe('Cannot continue after 16/B374D848: one; two');
    expect(error.advice).toBe(
      'Changes from 16/B374D848 to 17/0 cannot be streamed: compare the tables with the topics. To continue without them, ' +
        'set slots.main.cdc_slot.accept_loss_after: 16/B374D848 in the configuration and restart the service',
    );
    expect(error.place).toEqual({ database: 'main', slot: 'cdc_slot', lsn: '16/B374D848' });
  });

  test('droppedPublicationError does not know the end', () => {
    const error = droppedPublicationError(['a', 'odd "b"'], { ...stream, confirmedLsn: 0x40n });
    expect(error.message).toBe(
      'Cannot continue after 0/40: publication "a", "odd ""b""" was dropped while it was in use',
    );
    expect(error.advice).toContain('Changes from 0/40 on cannot be streamed');
  });

  test('wrongServerError is no loss', () => {
    expect(wrongServerError(3, 2)).toBeInstanceOf(SourceError);
    expect(wrongServerError(3, 2).message).toContain('on timeline 2, but this stream followed timeline 3 before');
  });
});
