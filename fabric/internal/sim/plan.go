package sim

import (
	"time"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// plan is what a seed decides before anything happens.
type plan struct {
	hosts    int
	channels []channelPlan
	bytes    int   // of messages in all, about
	largest  []int // message that a host's node takes, bytes
	budget   int64 // bytes that a node lends

	interval             time.Duration // of heartbeats
	pingTicks, deadTicks int
	window               time.Duration // for resuming
	safety               time.Duration // how long the safety phase lasts

	lag        [2]time.Duration // a packet's way
	writeTime  time.Duration    // of a write, at most
	wakeTime   time.Duration    // until a goroutine that was woken runs, at most
	wordTime   time.Duration    // of the directory's events, at most
	socket     int              // bytes that a connection takes without their being read
	repeats    bool             // packets repeat what was sent before, as the protocol allows
	freshPorts bool             // a node that is started anew has another address

	faults    [numFaults]int // weights
	faultWait time.Duration  // between faults, about; 0: there are none
}

type channelPlan struct {
	index     int
	name      string
	mark      flow.Mark        // of the producers' ends
	largest   int              // message in bytes
	producers [][]producerPlan // by host
	consumers [][]consumerPlan // by host
}

type producerPlan struct {
	from     time.Duration // when it begins
	messages int
	burst    int           // messages at a time, at most
	pause    time.Duration // between bursts, at most
	waits    bool          // at the high-water mark; else it comes again
}

type consumerPlan struct {
	from  time.Duration
	mark  flow.Mark
	burst int
	think time.Duration // between bursts, at most
}

// Limits of what one seed may ask for, so that it stays small.
const (
	maxStreams  = 64
	maxMessages = 1200
)

func newPlan(d dice) plan {
	const ms = time.Millisecond
	pl := plan{
		hosts:      one(d, 2, 2, 2, 3, 3, 4, 5),
		bytes:      one(d, 1<<16, 1<<20, 3<<20),
		budget:     one[int64](d, 0, 1000, 100<<10, 1<<20, 64<<20, 64<<20),
		interval:   one(d, 200*ms, time.Second),
		pingTicks:  d.from(1, 3),
		window:     one(d, 2*time.Second, 8*time.Second, 20*time.Second, 60*time.Second),
		writeTime:  one(d, time.Microsecond, 100*time.Microsecond, 5*ms),
		wakeTime:   one(d, time.Microsecond, 50*time.Microsecond, ms),
		wordTime:   one(d, ms, 50*ms, time.Second, 10*time.Second),
		socket:     one(d, 1, 64<<10, 512<<10),
		repeats:    d.percent(20),
		freshPorts: d.percent(50),
	}
	pl.deadTicks = pl.pingTicks + d.from(2, 6)
	pl.lag = one(d, [2]time.Duration{0, ms / 10}, [2]time.Duration{ms, ms}, [2]time.Duration{0, 20 * ms}, [2]time.Duration{5 * ms, 60 * ms})
	pl.safety = d.span(time.Second, 12*time.Second)
	for range pl.hosts {
		most := maxMessage
		if d.percent(10) {
			most = one(d, 50, 3000, 100_000)
		}
		pl.largest = append(pl.largest, most)
	}
	pl.planFaults(d)
	pl.planChannels(d)
	return pl
}

func planMark(d dice) flow.Mark {
	return one(d,
		flow.Mark{Messages: 1 << 16, Bytes: 4 << 20}, flow.Mark{Messages: 1 << 16, Bytes: 1 << 20},
		flow.Mark{Messages: 3, Bytes: 1 << 20}, flow.Mark{Messages: 100, Bytes: 1000},
		flow.Mark{Messages: 1, Bytes: 1}, flow.Mark{Messages: 10, Bytes: 70_000}, flow.Mark{Messages: 20, Bytes: 300_000})
}

func (pl *plan) planChannels(d dice) {
	streams, messages := 0, 0
	for i := range d.from(1, 3) {
		c := channelPlan{
			index: i, name: string(rune('a' + i)), mark: planMark(d),
			largest:   one(d, 0, 10, 100, 5000, 70_000, 300_000),
			producers: make([][]producerPlan, pl.hosts), consumers: make([][]consumerPlan, pl.hosts),
		}
		most := one(d, 1, 2, 4, 12)
		for h := range pl.hosts {
			for range d.IntN(4) {
				p := producerPlan{
					from: pl.begin(d), messages: d.from(0, one(d, 10, 60, 250)), burst: one(d, 1, 4, 40),
					waits: d.percent(50),
				}
				if messages += p.messages; messages > maxMessages {
					p.messages = min(p.messages, 5)
				}
				// Quick, or as long as there are faults.
				spread := min(pl.safety, pl.safety*time.Duration(p.burst)/time.Duration(p.messages+1))
				p.pause = one(d, time.Microsecond, time.Millisecond, spread, spread, spread)
				c.producers[h] = append(c.producers[h], p)
			}
			for range d.IntN(most + 1) {
				if streams += pl.hosts - 1; streams > maxStreams {
					break
				}
				c.consumers[h] = append(c.consumers[h], consumerPlan{
					from: pl.begin(d), mark: planMark(d), burst: one(d, 1, 3, 50),
					think: one(d, time.Microsecond, 100*time.Microsecond, 5*time.Millisecond, 50*time.Millisecond, 300*time.Millisecond),
				})
			}
		}
		c.some(d, pl)
		pl.channels = append(pl.channels, c)
	}
}

// some makes sure that there is a producer and a consumer that can meet.
func (c *channelPlan) some(d dice, pl *plan) {
	from := d.IntN(pl.hosts)
	to := (from + 1 + d.IntN(pl.hosts-1)) % pl.hosts
	if len(c.producers[from]) == 0 {
		c.producers[from] = []producerPlan{{messages: d.from(1, 50), burst: 5, pause: 10 * time.Millisecond, waits: d.percent(50)}}
	}
	if len(c.consumers[to]) == 0 {
		c.consumers[to] = []consumerPlan{{mark: planMark(d), burst: 5, think: time.Millisecond}}
	}
}

// begin is when something is made: at once, or in mid-run.
func (pl *plan) begin(d dice) time.Duration {
	if d.percent(70) {
		return 0
	}
	return d.span(0, pl.safety)
}
