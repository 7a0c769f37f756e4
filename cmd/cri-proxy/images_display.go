package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/cri-proxy/cri-proxy/imageservice"
)

const (
	// barPeriod is how often the bar is drawn at most.
	barPeriod = 100 * time.Millisecond
	// maxTotal is more than any image has. The bar has no unit for the speed of
	// what claims to be larger, and would panic.
	maxTotal = 1 << 40
)

// display shows how far a pull or a copy is: with a bar on a terminal, elsewhere
// with a line for each tenth. It uses no colours.
type display struct {
	out      io.Writer
	terminal bool
	bar      *progressbar.ProgressBar // On a terminal, from the start on: it counts the time.
	drawn    bool                     // It is known how much there is.
	total    int64                    // When a line was last thought of.
	tenths   int64                    // As much of it was reported.
}

func newDisplay(out io.Writer) *display {
	return &display{out: out, terminal: isTerminal(out)}
}

func (d *display) show(s imageservice.Step) error {
	var err error
	switch {
	case s.Started != nil:
		d.start()
		_, err = fmt.Fprintln(d.out, describe(*s.Started))
	case s.Progress != nil && (s.Progress.Total <= 0 || s.Progress.Total > maxTotal):
	case s.Progress != nil && d.bar != nil:
		err = d.draw(*s.Progress)
	case s.Progress != nil:
		err = d.line(*s.Progress)
	case s.Result != nil:
		if err = d.finish(); err == nil {
			_, err = fmt.Fprintln(d.out, s.Result.Message)
		}
	}
	return err
}

func describe(s imageservice.Started) string {
	if s.From != "" {
		return fmt.Sprintf("copying %s from handler %s to handler %s (backend %s)", s.Image, s.From, s.Handler, s.Backend)
	}
	return fmt.Sprintf("pulling %s for handler %s (backend %s)", s.Image, s.Handler, s.Backend)
}

// start makes the bar, which is drawn when there is something to show.
func (d *display) start() {
	if !d.terminal {
		return
	}
	d.bar = progressbar.NewOptions64(1, progressbar.OptionSetWriter(d.out), progressbar.OptionShowBytes(true),
		progressbar.OptionShowTotalBytes(true), progressbar.OptionShowCount(), progressbar.OptionFullWidth(),
		progressbar.OptionThrottle(barPeriod), progressbar.OptionOnCompletion(d.newline))
	d.bar.StartWithoutRender()
}

// draw moves the bar. A bar that was once full stays so, and one that shrinks is
// an error to it, but the parts of an image become known one after another: it
// is kept short of full until the work is done.
func (d *display) draw(p imageservice.Progress) error {
	d.drawn = true
	if p.Total > d.bar.GetMax64() {
		d.bar.ChangeMax64(p.Total)
	}
	return d.bar.Set64(max(0, min(p.Done, d.bar.GetMax64()-1)))
}

// newline gives what follows the bar a line of its own.
func (d *display) newline() {
	_, _ = fmt.Fprintln(d.out) //nolint:errcheck // What follows fails too, and is told.
}

// line says how far it is when another tenth is done. What is done of a total
// that has grown is no news.
func (d *display) line(p imageservice.Progress) error {
	tenths := int64(10 * float64(min(p.Done, p.Total)) / float64(p.Total))
	if p.Total != d.total && d.total != 0 {
		d.tenths = tenths
	}
	d.total = p.Total
	if tenths <= d.tenths {
		return nil
	}
	d.tenths = tenths
	_, err := fmt.Fprintf(d.out, "%s of %s\n", sizeOf(p.Done), sizeOf(p.Total))
	return err
}

// finish fills the bar.
func (d *display) finish() error {
	if !d.drawn {
		return nil
	}
	d.drawn = false
	return d.bar.Finish()
}

// close leaves a bar that is not full where it stands.
func (d *display) close() error {
	if !d.drawn {
		return nil
	}
	d.drawn = false
	return d.bar.Exit()
}
