import "tierheap/opfs-worker";
