/** Writes numbers for people. */

const LEAST_PLAIN = 1e-4; // smaller probabilities are written with an exponent

/** Returns a probability with three digits. */
export function probability(value) {
  if (value === null || value === undefined) return "0";
  if (value === 0 || value === 1) return String(value);
  return value < LEAST_PLAIN ? value.toExponential(2) : value.toPrecision(3);
}

/** Returns a log-probability with four decimals; the service writes minus infinity as null. */
export function logProbability(value) {
  return value === null || value === -Infinity ? "−∞" : value.toFixed(4).replace("-", "−");
}

/** Returns milliseconds with three digits, and their unit. */
export function milliseconds(value) {
  return `${Number(value.toPrecision(3))} ms`;
}

export const whole = (value) => value.toLocaleString("en");

/** Returns a number with its noun, which gets an s unless there is one. */
export const count = (value, noun) => `${whole(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Returns a difference of log-probabilities with two digits. */
export const logError = (value) => (value === 0 ? "0" : value < 1e-3 ? value.toExponential(1) : value.toPrecision(2));

/** Returns a share as a percentage; it is 100 % only if the share is whole. */
export function share(value) {
  if (value >= 1 || value === 0) return `${100 * value} %`;
  return `${Math.min(99.9, Number((100 * value).toPrecision(2)))} %`;
}
