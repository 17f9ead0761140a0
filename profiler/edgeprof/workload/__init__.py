"""The former home of the runtime contract, kept so that plugins written for edgeprof 0.1 go on working."""
