/* A clock that a test moves. */

export class Clock {
  constructor(now = 1_800_000_000_000) {
    this.now = now;
    this.skew = 0;
    this.timers = new Map();
    this.last = 0;
  }

  /** @param {{closed: boolean}} owner The timer does not run once its owner is closed. */
  setTimeout(run, ms, owner) {
    this.last += 1;
    this.timers.set(this.last, { at: this.now + (ms > 0 ? ms : 0), order: this.last, run, owner });
    return this.last;
  }

  clearTimeout(id) {
    this.timers.delete(id);
  }

  /** Lets time pass. Each timer runs when it is due, followed at once by the promises that it resolves. */
  async advance(ms) {
    const end = this.now + ms;
    await settled();
    for (;;) {
      let next;
      for (const [id, timer] of this.timers) {
        if (
          timer.at <= end &&
          (!next || timer.at < next[1].at || (timer.at == next[1].at && timer.order < next[1].order))
        ) {
          next = [id, timer];
        }
      }
      if (!next) break;
      this.timers.delete(next[0]);
      this.now = Math.max(this.now, next[1].at);
      if (!next[1].owner?.closed) next[1].run();
      await settled();
    }
    this.now = end;
  }
}

const settled = () => new Promise((done) => setImmediate(done));
