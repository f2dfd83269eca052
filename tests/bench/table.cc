#include "tests/bench/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "tests/bench/situations.h"

namespace bench {

namespace {

const double none = std::numeric_limits<double>::quiet_NaN();

// Beside which our figure of the same name is put.
constexpr const char* peers[] = {"C++",      "glibc",    "mimalloc", "jemalloc",
                                 "pmr_mono", "pmr_pool", "talloc",   "torch"};

//===-- Rows --------------------------------------------------------------===//

struct row {
  std::string title;
  std::string name;       // of the benchmark
  std::string yardstick;  // the benchmark it is divided by; empty: the target is in ns
  double target;          // at most; NaN: none
  std::string less;       // the benchmark whose time is taken off; empty: none
};

std::vector<row> yardstick_rows() {
  return {
      {"thread-local read", "yardstick/thread_local_read", "", none, ""},
      {"push and pop", "yardstick/push_pop", "", none, ""},
      {"bump and rewind", "yardstick/bump_rewind", "", none, ""},
      {"ideal tensor", "yardstick/ideal_tensor", "", none, ""},
      {"ideal tensor, of ten", "yardstick/ideal_layer", "", none, ""},
      {"atomic increment and decrement", "yardstick/atomic_pair", "", none, ""},
      {"malloc and free, 4 KiB", "glibc/host_tensor", "", none, ""},
  };
}

std::vector<row> operation_rows() {
  const std::string push_pop = "yardstick/push_pop";
  const std::string ideal = "yardstick/ideal_tensor";
  const std::string atomic = "yardstick/atomic_pair";
  std::vector<row> rows = {
      {"scope, one allocator", "tmcore/scope", push_pop, 1.0, ""},
      {"scope, two allocators", "tmcore/two_scopes", push_pop, 1.6, ""},
      {"current allocator", "tmcore/lookup", "yardstick/thread_local_read", 1.5, ""},
      {"tensor, stack allocator", "tmcore/stack_tensor", ideal, 2.5, ""},
      {"tensor of a layer of ten, in a scope", "tmcore/layer", "yardstick/ideal_layer", 2.5, ""},
      {"tensor, host allocator", "tmcore/host_tensor", "glibc/host_tensor", 1.2, ""},
      {"share and release, rank 4", "tmcore/share", atomic, 1.3, ""},
      {"slice", "tmcore/slice", atomic, 1.5, ""},
      {"view", "tmcore/view", atomic, 1.5, ""},
      {"transpose", "tmcore/transpose", atomic, 1.5, ""},
      {"squeeze", "tmcore/squeeze", atomic, 1.5, ""},
      {"layout view", "tmcore/layout_view", ideal, 2, ""},
      {"layout slice", "tmcore/layout_slice", ideal, 2, ""},
      {"layout coalesce", "tmcore/layout_coalesce", ideal, 2, ""},
      {"layout permute", "tmcore/layout_permute", ideal, 2, ""},
      {"named scope", "tmcore/named_scope", push_pop, 0.8, ""},
      {"trace text, depth 8", "tmcore/trace_text", "", 400, ""},
      {"batch copy, a contiguous piece", "tmcore/batch_contiguous", "", 1.2, ""},
      {"batch copy, a scattered piece", "tmcore/batch_scattered", "", 2, ""},
      {"batch copy, pointers", "tmcore/batch_pointers", "", 2, ""},
      {"map find", "tmcore/map_find", "", 5, ""},
      {"map produce and consume", "tmcore/map_produce_consume", "", 20, ""},
  };
  for (const int size : workload_sizes) {
    const std::string n = std::to_string(size);
    rows.push_back({"cached, random blocks, N = " + n, "random/" + n, "", 80, "random_null/" + n});
  }
  return rows;
}

std::vector<row> shared_rows() {
  std::vector<row> rows;
  for (const row& linked : operation_rows()) {
    const std::string prefix = "tmcore/";
    if (linked.name.compare(0, prefix.size(), prefix) == 0) {
      const std::string operation = linked.name.substr(prefix.size());
      rows.push_back({linked.title, "shared/" + operation, linked.name, 1.3, ""});
    }
  }
  return rows;
}

std::vector<row> thread_rows() {
  std::vector<row> rows;
  for (const char* operation :
       {"scope", "lookup", "stack_tensor", "layer", "host_tensor", "share", "slice"}) {
    const std::string name = std::string("threads/") + operation + "/";
    for (const int threads : thread_counts) {
      const std::string suffix = "threads:" + std::to_string(threads);
      const std::string title = std::string(operation) + ", ";
      rows.push_back({title + suffix, name + suffix, name + "threads:1", none, ""});
    }
  }
  return rows;
}

std::vector<row> scale_rows() {
  std::vector<row> rows;
  for (const char* operation : {"scope", "lookup", "lookup_on"}) {
    const std::string name = std::string("scale/") + operation + "/";
    for (const int depth : depths) {
      const std::string n = std::to_string(depth);
      rows.push_back({std::string(operation) + ", depth " + n, name + n, name + "1", none, ""});
    }
  }
  for (const int count : live_counts) {
    const std::string n = std::to_string(count);
    rows.push_back({"stack tensor, live: " + n, "scale/live/" + n, "scale/live/10", none, ""});
  }
  for (row& with_threads : thread_rows()) {
    rows.push_back(std::move(with_threads));
  }
  return rows;
}

//===-- Figures -----------------------------------------------------------===//

double nanoseconds(const samples& figures, const row& self) {
  const double all = figures.median(self.name);
  return self.less.empty() ? all : all - figures.median(self.less);
}

double ratio(const samples& figures, const row& self) {
  if (self.yardstick.empty()) return none;
  return nanoseconds(figures, self) / figures.median(self.yardstick);
}

// How often the target is used up; NaN where there is none.
double used(const samples& figures, const row& self) {
  const double what = self.yardstick.empty() ? nanoseconds(figures, self) : ratio(figures, self);
  return what / self.target;
}

// Our time as a part of the peer's.
double peer_ratio(const samples& figures, const row& self, const char* peer) {
  const std::string prefix = "tmcore/";
  if (self.name.compare(0, prefix.size(), prefix) != 0) return none;
  return figures.median(self.name) /
         figures.median(std::string(peer) + "/" + self.name.substr(prefix.size()));
}

std::string text(double value, const char* format) {
  if (std::isnan(value)) return "-";
  char buffer[32];
  (void)std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

void pad(std::ostream& out, const std::string& value, size_t width) {
  out << std::string(value.size() < width ? width - value.size() : 1, ' ') << value;
}

//===-- As text -----------------------------------------------------------===//

// Returns whether the row misses its target.
bool print_row(const samples& figures, const row& self, bool with_peers, std::ostream& out) {
  const double ns = nanoseconds(figures, self);
  if (std::isnan(ns)) return false;
  const double over = used(figures, self);
  const bool misses = over > 1;
  out << self.title << std::string(self.title.size() < 36 ? 36 - self.title.size() : 1, ' ');
  pad(out, text(ns, ns < 100 ? "%.2f" : "%.0f"), 9);
  pad(out, text(ratio(figures, self), "%.2f"), 8);
  pad(out,
      std::isnan(self.target) ? "-"
                              : text(self.target, "%g") + (self.yardstick.empty() ? " ns" : ""),
      8);
  out << (misses ? " MISS" : "     ");
  if (with_peers) {
    for (const char* peer : peers) {
      pad(out, text(peer_ratio(figures, self, peer), "%.2f"), 9);
    }
  }
  out << "\n";
  return misses;
}

int print_section(const samples& figures, const char* title, const std::vector<row>& rows,
                  bool with_peers, std::ostream& out) {
  int missing = 0;
  const bool any = std::any_of(rows.begin(), rows.end(), [&](const row& self) {
    return !std::isnan(nanoseconds(figures, self));
  });
  if (!any) return 0;
  out << "\n" << title << std::string(36 - std::min<size_t>(36, std::string(title).size()), ' ');
  pad(out, "ns", 9);
  pad(out, "ratio", 8);
  pad(out, "target", 8);
  out << "     ";
  if (with_peers) {
    for (const char* peer : peers) {
      pad(out, std::string("/") + peer, 9);
    }
  }
  out << "\n";
  for (const row& self : rows) {
    missing += print_row(figures, self, with_peers, out);
  }
  return missing;
}

}  // namespace

double samples::median(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return none;
  std::vector<double> sorted = found->second;
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

int print_table(const samples& figures, std::ostream& out) {
  print_section(figures, "Yardsticks", yardstick_rows(), false, out);
  int missing = print_section(figures, "Operations", operation_rows(), true, out);
  missing += print_section(figures, "The same through libtmcore.so", shared_rows(), false, out);
  print_section(figures, "Scale", scale_rows(), false, out);
  return missing;
}

//===-- As JSON -----------------------------------------------------------===//

void print_json(const samples& figures, std::ostream& out) {
  out << "[";
  const char* separator = "\n";
  for (const auto& rows : {operation_rows(), shared_rows(), scale_rows()}) {
    for (const row& self : rows) {
      const double ns = nanoseconds(figures, self);
      if (std::isnan(ns)) continue;
      const auto number = [](double value) {
        return std::isnan(value) ? std::string("null") : text(value, "%.6g");
      };
      out << separator << "    {\"operation\": \"" << self.title << "\", \"name\": \"" << self.name
          << "\", \"ns\": " << number(ns)
          << ", \"yardstick\": " << (self.yardstick.empty() ? "null" : "\"" + self.yardstick + "\"")
          << ", \"ratio\": " << number(ratio(figures, self))
          << ", \"target\": " << number(self.target)
          << ", \"misses\": " << (used(figures, self) > 1 ? "true" : "false") << ", \"peers\": {";
      const char* comma = "";
      for (const char* peer : peers) {
        const double beside = peer_ratio(figures, self, peer);
        if (std::isnan(beside)) continue;
        out << comma << "\"" << peer << "\": " << number(beside);
        comma = ", ";
      }
      out << "}}";
      separator = ",\n";
    }
  }
  out << "\n  ]";
}

}  // namespace bench
