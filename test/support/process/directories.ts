import { resolve } from 'node:path';

/** The project's directory. */
export const PROJECT_DIRECTORY = resolve(import.meta.dirname, '../../..');

/** The cache, `.cache` in the project's directory. */
export const CACHE_DIRECTORY = resolve(PROJECT_DIRECTORY, '.cache');
