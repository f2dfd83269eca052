// Page-locked memory of a machine that checks: one range of addresses that the program sees, where
// pages can be forbidden, and the same pages a second time for the simulation's own use.
//
//   program   | none | block a      | none | block b | none | freed c, none | none ...
//   alias     |      | read, write, always ...
//
// A page that is always forbidden lies before every block, so that what runs over an end, and what
// libc's free() looks for before its memory, shows. Freed blocks stay forbidden for a while.
//
// Two locks guard it: it is changed only with both the runtime's and its own, so that either is
// enough to read it. Signal handlers take its own.
#ifndef CUDASIM_PINNED_H_
#define CUDASIM_PINNED_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/block.h"
#include "cudasim/report.h"
#include "cudasim/tree.h"

#define PINNED_PAGE ((uint64_t)4096)

struct host_use;

typedef struct pinned {
  tree_node node;  // must be first; major is the address of the forbidden page before it
  uint64_t bytes;  // that were asked for
  block* place;    // its addresses, that page included
  site* allocated;
  site* freed;  // NULL while it is live
  bool is_freed;
  struct pinned* newer;   // freed ones, in their order
  struct host_use* uses;  // of live ones: host_check's
  struct pinned* next_used;
  uint64_t* open;  // a bit per page: not forbidden, whatever its uses say
  bool has_open;   // there is one
  bool is_lent;    // and one of them to a host function that runs
} pinned;

static inline uint64_t pinned_address(const pinned* p) { return p->node.major + PINNED_PAGE; }
static inline uint64_t pinned_end(const pinned* p) { return block_end(p->place); }

// A block of `bytes`, all zero; NULL where there are no addresses or too many blocks: memory that
// is not checked serves as well. Needs the runtime's lock.
pinned* sim_pinned_take(uint64_t bytes);

// Forbids it for a while, then gives its addresses to others. Needs the runtime's lock.
void sim_pinned_give(pinned* p);

// Where the simulation sees an address of a block.
char* sim_pinned_alias(uint64_t address);

// Whether the address is one that blocks may have. Needs no lock.
bool sim_pinned_holds(uint64_t address);

// The last block that begins at or before the address, live or freed; NULL if there is none.
pinned* sim_pinned_before(uint64_t address);

// The live block whose memory holds the address, or NULL.
pinned* sim_pinned_around(uint64_t address);

// Sets what the program may do with whole pages: PROT_... False when the host refuses.
bool sim_pinned_protect(uint64_t address, uint64_t bytes, int rights);

// Lets the program do as it likes, from now on.
void sim_pinned_forgive(void);

// In a forked child: makes the memory its own, as it is, with nothing forbidden. Needs no lock.
void sim_pinned_separate(void);

// Frees everything.
void sim_pinned_drop(void);

// Its own lock; not to be taken twice.
void sim_pinned_lock(void);
void sim_pinned_unlock(void);

#endif  // CUDASIM_PINNED_H_
