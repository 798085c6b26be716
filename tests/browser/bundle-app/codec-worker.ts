import "tierheap/codec-worker";
