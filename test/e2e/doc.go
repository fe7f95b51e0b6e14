// Package e2e installs Tandem into two empty Kubernetes clusters with Knative, sends
// the flights through, does harm meanwhile, and compares with the truth.
//
//	make e2e                                           starts two clusters here: test/realcluster
//	make e2e EAST=east.kubeconfig WEST=west.kubeconfig
//
// PostgreSQL and NATS run on this machine, in the test's process and beside it; the
// clusters' pods have to reach this machine. What must be there besides is in the
// environment:
//
//	EAST, WEST          kubeconfigs of two clusters with Knative Serving and Eventing;
//	                    namespace tandem is made there, and removed at the end
//	REGISTRY            where images are pushed, by a name that the clusters pull by too
//	                    (default localhost:5000/tandem)
//	HOST_FROM_PODS      how pods call this machine (default host.docker.internal)
//	CUT_WEST, HEAL_WEST commands that cut and heal the link of cluster west; without
//	                    them that part is left out, and said so. Likewise CUT_EAST,
//	                    HEAL_EAST
//	CUT_SECONDS         how long a link stays cut (default 60)
//	KEEP                anything: leave everything in the clusters at the end
package e2e
