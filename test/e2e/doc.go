// Package e2e installs Tandem into two empty Kubernetes clusters with Knative, feeds the
// flights, injects faults meanwhile, and compares the result with the truth.
//
//	make e2e                                           starts two clusters here: test/realcluster
//	make e2e EAST=east.kubeconfig WEST=west.kubeconfig
//
// PostgreSQL and NATS run on this machine, in the test's process and beside it; the clusters'
// pods have to reach this machine. The environment holds the other requirements:
//
//	EAST, WEST          kubeconfigs of two clusters with Knative Serving and Eventing;
//	                    namespace tandem is created there, and removed at the end
//	REGISTRY            where images are pushed, by a name that the clusters also pull by
//	                    (default localhost:5000/tandem)
//	HOST_FROM_PODS      the name of this machine for pods (default host.docker.internal)
//	CUT_WEST, HEAL_WEST commands that cut and heal the link of cluster west; without
//	                    them that part is skipped, with a message. Likewise CUT_EAST,
//	                    HEAL_EAST
//	CUT_SECONDS         how long a link stays cut (default 60)
//	KEEP                any value: leave everything in the clusters at the end
package e2e
