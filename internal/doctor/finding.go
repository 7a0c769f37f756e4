package doctor

import "fmt"

// Verdict is the outcome of one check.
type Verdict string

// The verdicts. A problem breaks pods, now or at the next restart; a warning may,
// or is not what is usually meant.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Problem Verdict = "problem"
	Skipped Verdict = "skipped"
)

// Finding is what one check says of one thing.
type Finding struct {
	Check   string  `json:"check"`             // The same in every version, such as "backend".
	Subject string  `json:"subject,omitempty"` // What was looked at, such as the backend's name.
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason"`
	Next    string  `json:"next,omitempty"` // What to do about it.
}

// check collects the findings of one check about one thing.
type check struct {
	node    *node
	name    string
	subject string
}

func (n *node) about(name, subject string) check { return check{n, name, subject} }

func (c check) add(v Verdict, next, reason string, args ...any) {
	c.node.findings = append(c.node.findings, Finding{
		Check: c.name, Subject: c.subject, Verdict: v, Reason: fmt.Sprintf(reason, args...), Next: next,
	})
}

func (c check) ok(reason string, args ...any) { c.add(OK, "", reason, args...) }

func (c check) skip(reason string, args ...any) { c.add(Skipped, "", reason, args...) }

func (c check) warn(next, reason string, args ...any) { c.add(Warning, next, reason, args...) }

func (c check) problem(next, reason string, args ...any) { c.add(Problem, next, reason, args...) }
