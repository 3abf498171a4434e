package conformance

import (
	"context"
	"flag"
	"io/fs"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/apis/v1alpha2"
	"sigs.k8s.io/gateway-api/apis/v1alpha3"
	"sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/flags"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	xv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// Upstream's flags (-run-test, -report-output, -version ...) hold too.
// The experimental channel holds everything of the standard one, and the fields of features that are claimed (retry, sessionPersistence).
var channel = flag.String("channel", "experimental", "channel of the Gateway API's CRDs: standard or experimental")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(cluster.Lab(m, cluster.PrepareGatehouse, cluster.PrepareConformance))
}

// TestGatewayHTTP is the profile GATEWAY-HTTP: every core test, and every extended test of a feature that the GatewayClass's status
// claims.
func TestGatewayHTTP(t *testing.T) {
	ctx := t.Context()
	c := cluster.StartTest(t, cluster.Options{})
	if err := c.InstallGatewayAPI(ctx, *channel); err != nil {
		t.Fatal(err)
	}
	if err := c.InstallGatehouse(ctx, cluster.Release{}); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, c, suite.GatewayHTTPConformanceProfileName)
}

// run runs a profile. Features are those that the GatewayClass claims: the suite reads them from its status.
func run(_ context.Context, t *testing.T, c *cluster.Cluster, profile suite.ConformanceProfileName) {
	t.Helper()
	log.SetLogger(logr.Discard())
	cl, err := client.New(c.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, add := range []func(*runtime.Scheme) error{v1alpha3.Install, v1alpha2.Install, v1beta1.Install, xv1alpha1.Install, gatewayv1.Install,
		apiextensionsv1.AddToScheme} {
		if err := add(cl.Scheme()); err != nil {
			t.Fatal(err)
		}
	}
	cs, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	o := suite.ConfigurableOptions{
		GatewayClassName: "gatehouse", Mode: "default", TimeoutConfig: config.DefaultTimeoutConfig(),
		ConformanceProfiles: []suite.ConformanceProfileName{profile}, CleanupBaseResources: true, CleanupTestResources: true,
		Implementation: confv1.Implementation{Organization: "gatehouse-io", Project: "gatehouse", URL: "https://github.com/gatehouse-io/gatehouse",
			Version: "unknown", Contact: []string{"https://github.com/gatehouse-io/gatehouse/issues"}},
	}
	flags.ApplyAll(&o)
	conformance.RunConformanceWithOptions(t, suite.ConformanceOptions{Client: cl, Clientset: cs, RestConfig: c.Config(),
		ManifestFS: []fs.FS{&conformance.Manifests}, ConfigurableOptions: o})
}
