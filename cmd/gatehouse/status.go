package main

import (
	"context"
	"fmt"
	"io"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/kube"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// statusView is what status prints as JSON.
type statusView struct {
	Installations []kube.Installation `json:"installations"`
	Objects       []*diag.Object      `json:"objects"`
}

// runStatus reads what stands in the cluster: no translation of its own, so that it shows what everybody else sees.
func runStatus(ctx context.Context, c *call) error {
	r, o := c.reach(), c.output()
	rest, err := c.parse()
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return &usageError{fmt.Sprintf("unexpected %q", rest[0])}
	}
	if err := oneOf("-o", *o, "text", "json"); err != nil {
		return err
	}
	k, err := r.connect()
	if err != nil {
		return err
	}
	view := statusView{Installations: []kube.Installation{}, Objects: []*diag.Object{}}
	found, err := k.Installations(ctx)
	if err != nil {
		return err
	}
	view.Installations = append(view.Installations, found...)
	var unread []diag.Fault
	var report *diag.Report
	err = k.Once(ctx, func(change objects.Change, faults []diag.Fault) []objects.Key {
		unread, report = faults, reported(change.Upserts, *r.gateway, *r.ingress)
		return nil
	})
	if err != nil {
		return err
	}
	view.Objects = append(view.Objects, report.Sorted()...)
	if *o == "json" {
		if err := writeJSON(c, view); err != nil {
			return err
		}
	} else if err := printStatus(c.stdout, &view, report, unread); err != nil {
		return err
	}
	if len(found) == 0 || !diag.Wished(report) {
		return errFound
	}
	return nil
}

// reported is what stands in the statuses of what is ours.
func reported(all []objects.Object, gateway, ingress string) *diag.Report {
	classes := map[string]bool{}
	for _, o := range all {
		switch o := o.(type) {
		case *gatewayv1.GatewayClass:
			classes["GatewayClass/"+o.Name] = string(o.Spec.ControllerName) == gateway
		case *networkingv1.IngressClass:
			classes["IngressClass/"+o.Name] = o.Spec.Controller == ingress
		}
	}
	var out []*diag.Object
	for _, o := range all {
		switch o := o.(type) {
		case *gatewayv1.Gateway:
			if !classes["GatewayClass/"+string(o.Spec.GatewayClassName)] {
				continue
			}
		case *networkingv1.Ingress:
			if o.Spec.IngressClassName == nil || !classes["IngressClass/"+*o.Spec.IngressClassName] {
				continue
			}
		}
		if d := kube.Reported(o, gateway); d != nil {
			out = append(out, d)
		}
	}
	return diag.NewReport(out...)
}

func printStatus(w io.Writer, v *statusView, r *diag.Report, unread []diag.Fault) error {
	for _, i := range v.Installations {
		fmt.Fprintln(w, i.Describe(time.Now()))
	}
	if len(v.Installations) == 0 {
		fmt.Fprintln(w, "no installation found: nothing with the label app.kubernetes.io/name=gatehouse runs here")
	}
	for _, f := range unread {
		fmt.Fprintln(w, f)
	}
	_, err := io.WriteString(w, diag.StatusText(r))
	return err
}
