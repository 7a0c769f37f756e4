// Package calls is what the program caller tells of its calls.
package calls

import "time"

// Seen is what the calls saw that began while one thing happened.
type Seen struct {
	Stage   string        `json:"stage"` // "install" is the first
	Calls   int           `json:"calls"`
	Longest time.Duration `json:"longest"`
	Failed  []Failure     `json:"failed"`
}

// Failure is a call that failed.
type Failure struct {
	Connection string        `json:"connection"` // "kept" or "new"
	Began      time.Time     `json:"began"`
	Took       time.Duration `json:"took"`
	Error      string        `json:"error"`
}
