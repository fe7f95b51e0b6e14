module github.com/tandem-fn/tandem/test/realcluster/build/tools

go 1.26
