// `tm plan`: what an engine needs of a device, found without using any.
#ifndef TOOLS_PLAN_H_
#define TOOLS_PLAN_H_

// Runs the command; argv[0] is its name. Returns the exit status.
int plan_main(int argc, char** argv);

#endif  // TOOLS_PLAN_H_
