package real_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
)

// shortRules is the file of the rules whose times are those of a test.
const shortRules = "short.yaml"

// shortened are the same rules with times that a test can wait for.
func shortened(rules string) string {
	for long, short := range map[string]string{
		`\[(5|10|15)m\]`: "[15s]",
		`\[30m\]`:        "[3m]",
		`for: \d+m`:      "for: 0s",
		`> 3600`:         "> 2",
	} {
		rules = regexp.MustCompile(long).ReplaceAllString(rules, short)
	}
	return rules
}

// alert is one of the rules, and what makes it fire. All but the name may be nil.
type alert struct {
	name  string
	come  func(context.Context) error // Once.
	again func(context.Context) error // Until it fires.
	end   func(context.Context) error
}

// faultAlerts are those that fire while one proxy runs.
func faultAlerts(m *monitored) []alert {
	var large []string
	return []alert{
		{
			name: "CRIProxyHooksFail", // One failure, the first of the process, is enough.
			come: func(ctx context.Context) error {
				id, err := m.container(ctx, "failing")
				return errors.Join(err, m.removed(ctx, id))
			},
		},
		{
			name: "CRIProxyPullsFail",
			again: func(ctx context.Context) error {
				if _, err := m.kubelet.Pull(ctx, m.here, "example.test/none:v1"); err == nil {
					return errors.New("an image that does not exist was pulled")
				}
				return nil
			},
		},
		{
			name: "CRIProxyHookStuck", // Its hook takes a while.
			come: func(ctx context.Context) error {
				_, err := m.container(ctx, "waiting")
				return err
			},
		},
		{
			name: "CRIProxyListsNearLimit",
			come: func(ctx context.Context) (err error) {
				for i := 0; i < 5 && err == nil; i++ {
					large = append(large, "")
					large[i], err = m.created(ctx, fmt.Sprintf("large%d", i), map[string]string{"large": strings.Repeat("x", 1<<20)})
				}
				return err
			},
			end: func(ctx context.Context) error { return m.removed(ctx, large...) },
		},
		{
			name: "CRIProxyReloadFailed",
			come: func(context.Context) error { return m.reload(`on_unavailable = "skip"`, `on_unavailable = "hope"`) },
			end:  func(context.Context) error { return m.reload(`on_unavailable = "hope"`, `on_unavailable = "skip"`) },
		},
		{name: "CRIProxyBackendDown", come: func(context.Context) error { return m.beta.Stop() }},
		{name: "CRIProxyCallsFail", end: m.beta.Start}, // The backend is still away.
		{name: "CRIProxySlow", again: m.hang},
	}
}

// restartAlerts are those for which the proxy has to end.
func restartAlerts(m *monitored) []alert {
	return []alert{
		{
			name: "CRIProxyDown",
			come: func(context.Context) error { return m.proxy.Stop() },
			end: func(ctx context.Context) error {
				return errors.Join(m.damage(), os.Remove(m.services), m.proxy.Start(ctx))
			},
		},
		{name: "CRIProxyStateLost"}, // By the end of the one before, as the next.
		{name: "CRIProxyServicesUnknown", end: func(context.Context) error { return m.writeServices() }},
		{
			name: "CRIProxyRestarts",
			come: func(ctx context.Context) error {
				return errors.Join(m.startAgain(ctx), m.startAgain(ctx), m.startAgain(ctx))
			},
		},
	}
}

// testAlerts lets one thing after another happen, until Prometheus says so.
func testAlerts(ctx context.Context, t *testing.T, m *monitored, alerts []alert) {
	for _, a := range alerts {
		t.Run(a.name, func(t *testing.T) {
			if a.come != nil {
				if err := a.come(ctx); err != nil {
					t.Fatal(err)
				}
			}
			var says promv1.Alert
			waitFor(ctx, t, func() (err error) { says, err = m.fires(ctx, a); return err })
			t.Logf("%s: %s", says.Annotations["summary"], says.Annotations["description"])
			wantContains(t, string(says.Annotations["summary"]), m.proxy.Metrics)
			for _, bad := range []string{"<no value>", "<error", "{{"} {
				if text := fmt.Sprint(says.Annotations); strings.Contains(text, bad) {
					t.Errorf("it says %s", text)
				}
			}
			if a.end != nil {
				if err := a.end(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// fires returns what an alert says, or why it does not.
func (m *monitored) fires(ctx context.Context, a alert) (promv1.Alert, error) {
	if a.again != nil {
		if err := a.again(ctx); err != nil {
			return promv1.Alert{}, err
		}
	}
	firing, err := m.firing(ctx)
	if err == nil && firing[a.name] == nil {
		err = fmt.Errorf("%s does not fire, only %q", a.name, slices.Sorted(maps.Keys(firing)))
	}
	if err != nil {
		return promv1.Alert{}, err
	}
	return *firing[a.name], nil
}

// testAlertsEnd: no alert outlives its reason, all were made to fire, and the
// rules as they are shipped could be evaluated all the time.
func testAlertsEnd(ctx context.Context, t *testing.T, m *monitored) {
	waitFor(ctx, t, func() error {
		firing, err := m.firing(ctx)
		if left := slices.Sorted(maps.Keys(firing)); err == nil && !slices.Equal(left, []string{"CRIProxyRestarts"}) {
			err = fmt.Errorf("%q fire still, want CRIProxyRestarts alone, which looks back longer than this test", left)
		}
		return err
	})
	var provoked, shipped []string
	for _, a := range slices.Concat(faultAlerts(m), restartAlerts(m)) {
		provoked = append(provoked, a.name)
	}
	rules, err := m.rules(ctx, "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		shipped = append(shipped, rule.Name)
		if rule.Health != promv1.RuleHealthGood {
			t.Errorf("%s is %s: %s", rule.Name, rule.Health, rule.LastError)
		}
	}
	slices.Sort(provoked)
	slices.Sort(shipped)
	if !slices.Equal(provoked, shipped) {
		t.Errorf("the rules are %q, and made to fire were %q", shipped, provoked)
	}
}
