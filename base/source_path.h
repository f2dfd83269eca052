// How a source file is named wherever tmcore names one: in traces, error records, fatal messages
// and log lines. Private.
#ifndef TM_BASE_SOURCE_PATH_H_
#define TM_BASE_SOURCE_PATH_H_

// The part of `file` to show: its last component, or all of it where the environment has
// TM_SRC_FULL_PATH, which is read once. NULL reads as "".
// Ownership: a part of `file`.
// Threads: safe.
const char* tm_source_path_(const char* file);

#endif  // TM_BASE_SOURCE_PATH_H_
