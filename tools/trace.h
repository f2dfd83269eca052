// `tm trace`: replays a log of allocations through each of several allocators, and compares them.
#ifndef TOOLS_TRACE_H_
#define TOOLS_TRACE_H_

// Runs the command; argv[0] is what messages call it. Returns the exit status of the program.
int trace_main(int argc, char** argv);

#endif  // TOOLS_TRACE_H_
