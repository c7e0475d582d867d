package amqp

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// wire is a link over a codec of our own. Messages are encoded straight into
// the buffer that is written; what comes is read in place, and handed over in
// bulk: nothing is allocated for a message.
//
// Three goroutines: the publisher's encodes and writes; read is the only one
// that reads; beat writes heartbeats while there is nothing else to write. The
// first two share in, behind mu; all that write hold writing.
type wire struct {
	raw     *conn
	channel uint16
	most    int // bytes of a frame, agreed
	agreed  time.Duration

	// The publisher's.
	buf []byte // frames, whole ones, to be written
	tag uint64 // of the last message in buf
	out news   // handed over

	sent    atomic.Uint64 // tag of the last message written, or being written
	writing sync.Mutex
	wrote   atomic.Bool // since beat looked last

	mu  sync.Mutex
	in  news
	err error // why it has ended
	bye bool  // the broker closes the connection and waits for an answer

	told uint64 // read's: messages answered that were handed over

	fresh chan struct{} // capacity 1: in has changed
	over  chan struct{} // closed once err is set
	done  chan struct{} // closed when nothing is read any more
	work  sync.WaitGroup
}

// openWire does AMQP's handshakes.
func openWire(raw *conn, cfg *Config, password string) (link, error) {
	h := handshake{raw: raw, cfg: cfg, password: password, most: frameMost, buf: make([]byte, 0, readBuffer)}
	if err := h.do(); err != nil {
		return nil, err
	}
	w := &wire{
		raw: raw, channel: h.channel, most: h.most, agreed: h.heartbeat,
		fresh: make(chan struct{}, 1), over: make(chan struct{}), done: make(chan struct{}),
	}
	raw.listen(w.agreed)
	a := newAnswers(w.channel, w.most, cfg.window(), &w.sent)
	w.work.Go(func() { w.read(a, h.buf) })
	if w.agreed > 0 {
		w.work.Go(w.beat)
	}
	return w, nil
}

// readBuffer is what a read takes at the most, unless a frame is larger.
const readBuffer = 32 << 10

// read takes in what the broker sends, until the connection's end. buf holds
// what was read already.
func (w *wire) read(a *answers, buf []byte) {
	defer close(w.done)
	defer func() {
		// A panic would end the process, which is somebody's database server.
		if v := recover(); v != nil {
			w.end(fmt.Errorf("internal error: %v", v))
			w.raw.Close()
		}
	}()
	for {
		used, err := a.feed(buf)
		if told := w.tell(a); err == nil {
			err = told
		}
		if err == nil && a.done {
			err = errors.New("the connection was closed")
		}
		if err != nil {
			w.end(err)
			w.raw.Close()
			return
		}
		buf = buf[:copy(buf[:cap(buf)], buf[used:])]
		if len(buf) == cap(buf) {
			// One frame fills it. cut has seen that it is not too large.
			buf = append(make([]byte, 0, w.most), buf...)
		}
		n, err := w.raw.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			_, _ = a.feed(buf)
			_ = w.tell(a)
			w.end(networkError(err))
			return
		}
	}
}

// tell hands over what is new.
func (w *wire) tell(a *answers) error {
	w.mu.Lock()
	same := a.news.nothingSince(w.told)
	w.told = a.news.answered
	w.in.add(&a.news)
	w.bye = a.bye
	returns := len(w.in.returns)
	w.mu.Unlock()
	a.news.forget()
	if a.ends != nil {
		w.end(a.ends)
	}
	if returns > len(a.marks) {
		return errReturns
	}
	if !same {
		select {
		case w.fresh <- struct{}{}:
		default:
		}
	}
	return nil
}

// end sets why the link has ended, the first reason of all.
func (w *wire) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err = err
	close(w.over)
	// The broker may read no more.
	w.hurry(time.Now().Add(closeTimeout))
}

// beat writes heartbeats: at the latest when half of what was agreed has passed
// without a write.
func (w *wire) beat() {
	ticker := time.NewTicker(w.agreed / 4)
	defer ticker.Stop()
	frame := appendFrame(nil, frameHeartbeat, 0, nil)
	for {
		select {
		case <-w.done:
			return
		case <-ticker.C:
		}
		// Who writes meanwhile is not silent. A write that fails is
		// noticed by who writes or reads next.
		if !w.wrote.Swap(false) && w.writing.TryLock() {
			_, _ = w.raw.Write(frame)
			w.writing.Unlock()
		}
	}
}

func (w *wire) publish(cfg *Config, m *Message) (err error) {
	if w.buf, err = appendPublish(w.buf, w.channel, w.most, cfg, m); err != nil {
		return err
	}
	w.tag++
	for body := m.Body; len(body) > 0; {
		n := min(len(body), w.most-frameOverhead)
		w.buf = appendFrame(w.buf, frameBody, w.channel, body[:n])
		body = body[n:]
		if len(w.buf) >= corkLimit {
			if err = w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *wire) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	w.sent.Store(w.tag) // first: the confirm may be here before Write returns
	w.writing.Lock()
	_, err := w.raw.Write(w.buf)
	w.writing.Unlock()
	w.wrote.Store(true)
	w.buf = w.buf[:0]
	if cap(w.buf) > 4*corkLimit {
		w.buf = nil
	}
	return err
}

func (w *wire) hear() *news {
	w.out.forget()
	w.mu.Lock()
	w.in, w.out = w.out, w.in
	w.in.answered = w.out.answered
	w.mu.Unlock()
	return &w.out
}

func (w *wire) wait(o *waits) event {
	fresh := w.fresh
	if o.quiet {
		fresh = nil
	}
	select {
	case <-fresh:
	case <-w.over:
	case <-o.wake:
		return woken
	case <-o.kick:
		return kicked
	case <-o.stop:
		return stopped
	case <-o.timer:
		return timeUp
	}
	return heard
}

func (w *wire) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *wire) lost(err error) error {
	select {
	case <-w.over:
		return w.ended()
	case <-time.After(100 * time.Millisecond):
	}
	return networkError(err)
}

func (w *wire) heartbeat() time.Duration { return w.agreed }

func (w *wire) gather(d time.Duration) { w.raw.gather.Store(int64(d)) }

func (w *wire) hurry(t time.Time) { _ = w.raw.SetWriteDeadline(t) }

func (w *wire) close() {
	w.gather(0)
	w.hurry(time.Now().Add(closeTimeout))
	w.mu.Lock()
	bye := w.bye
	w.mu.Unlock()
	var goodbye []byte
	if bye {
		goodbye = closeFrame(openMethod(nil, 0, connectionCloseOK), 0)
	} else {
		goodbye = appendClose(nil, 200, "")
	}
	w.writing.Lock()
	_, err := w.raw.Write(goodbye)
	w.writing.Unlock()
	if err == nil && !bye {
		// Confirms that come before the answer are that many fewer
		// duplicates.
		select {
		case <-w.done:
		case <-time.After(closeTimeout):
		}
	}
	w.raw.Close()
	w.work.Wait()
}
