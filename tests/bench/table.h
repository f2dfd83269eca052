// What the figures are compared with, as text and as JSON.
#ifndef TESTS_BENCH_TABLE_H_
#define TESTS_BENCH_TABLE_H_

#include <map>
#include <ostream>
#include <string>
#include <vector>

namespace bench {

// Nanoseconds of each repetition, by the benchmark's name.
class samples {
 public:
  void add(const std::string& name, double nanoseconds) { values_[name].push_back(nanoseconds); }

  // NaN where there are none.
  [[nodiscard]] double median(const std::string& name) const;

 private:
  std::map<std::string, std::vector<double>> values_;
};

// The whole table: yardsticks, operations beside them and beside the peers, the shared library,
// scale. Rows without figures, because they were filtered out, are left out. Returns how many miss
// their target.
int print_table(const samples& figures, std::ostream& out);

// The same as a JSON array of objects.
void print_json(const samples& figures, std::ostream& out);

}  // namespace bench

#endif  // TESTS_BENCH_TABLE_H_
