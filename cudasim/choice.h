// The choices of the schedule `random`: what is ready, and what of it is done next, and whether
// anything is done where nothing has to be. All follow from the seed.
//
// A draw between equals would be too tame: where two streams have ten ops each, it hardly ever does
// all of one before any of the other, and that is what many a missing event needs to be seen. So
// the mood changes at every wait. In one, all that is ready has the same chance. In the other,
// streams keep lots, and the highest goes first until it happens to draw another: some run far
// ahead, some stand still until somebody waits for them. The mood also says how often submitting is
// an occasion for doing some work. Guarded by the runtime's lock.
#ifndef CUDASIM_CHOICE_H_
#define CUDASIM_CHOICE_H_

#include <stdbool.h>
#include <stdint.h>

#include "cudasim/stream.h"

// Begins anew, with nothing ready.
void sim_choice_begin(uint64_t seed);

// Changes the mood.
void sim_choice_turn(void);

// The next 64 random bits.
uint64_t sim_choice_bits(void);

// A number from 0 to `count` - 1.
uint32_t sim_choice_below(uint32_t count);

// Whether the mood makes this submission an occasion for doing some work.
bool sim_choice_is_occasion(void);

// How many ops are done on an occasion: 1 to 64, small numbers as often as large ones.
uint32_t sim_choice_ops(void);

// `s` has become ready.
void sim_choice_offer(stream* s);

// Takes one of the streams that are ready; NULL: there is none.
stream* sim_choice_take(void);

// Takes `s`, which is ready.
void sim_choice_take_this(stream* s);

#endif  // CUDASIM_CHOICE_H_
