// `tm info`: what the library sees of the machine.
#ifndef TOOLS_INFO_H_
#define TOOLS_INFO_H_

// Runs the command; argv[0] is what messages call it. Returns the exit status of the program.
int info_main(int argc, char** argv);

#endif  // TOOLS_INFO_H_
