"""How long one end of a connection waits for the other before it gives it up: one figure, for all of them.

A cut of the network of `CUT` s in the middle of a query costs no worker. TCP repeats what was lost at times
whose distance doubles: after a cut of T s it may be another T s until the next attempt gets through (over SSH
on Linux 6.15 and later a few: `gridproof.proxy.channel.retry_often`). So who has been silent for twice a cut
may well be there, and nobody who waits for a sign of life across the network gives up before `SILENCE`:

- SSH, both ends of pilots' and users' connections: a keep-alive message every `KEEPALIVE` s, and when nothing
  has come for `SILENCE` the connection is given up. A half-open one (a NAT has forgotten it, a machine has
  vanished) is noticed so by both ends, also while neither has anything to say.
- The registry, which expects a pilot's heartbeat every 5 s (`Limits.lost_after`).
- distributed, where workers go directly: unacknowledged data and TCP's own keep-alive (`comm.timeouts.tcp`),
  connections and handshakes that begin during a cut (`comm.timeouts.connect`, `death_timeout`), a worker's
  heartbeat (`worker-ttl`, looked at once in that time: a dead worker may be known for twice as long).

A query waits for none of these: packets of a worker that does not answer run elsewhere long before. A pilot
that has given up its connection dials again, and ends when that fails for ``orphan_limit``.
"""

CUT = 60.0
SILENCE = 2.5 * CUT
KEEPALIVE = 15.0
