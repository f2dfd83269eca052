// `tm replay`: serves one trace of requests with each of several allocators, and compares them.
#ifndef TOOLS_REPLAY_H_
#define TOOLS_REPLAY_H_

// Runs the command; argv[0] is what messages call it. Returns the exit status of the program.
int replay_main(int argc, char** argv);

#endif  // TOOLS_REPLAY_H_
