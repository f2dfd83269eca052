// A balanced binary tree of nodes embedded in what they order, by (major, minor).
//
// A zip tree (Tarjan, Levy, Timmel): every node carries a priority drawn from its key, and the tree
// is the one treap of these priorities. Expected depth is logarithmic, no node knows its parent,
// and neither insertion nor removal rotates.
#ifndef CUDASIM_TREE_H_
#define CUDASIM_TREE_H_

#include <stdint.h>

typedef struct tree_node {
  struct tree_node* left;
  struct tree_node* right;
  uint64_t major;
  uint64_t minor;  // (major, minor) is unique within a tree
  uint64_t priority;
} tree_node;

typedef struct tree {
  tree_node* root;
} tree;

// Adds `node`, whose key is set and stays as it is until the node is removed.
void sim_tree_insert(tree* t, tree_node* node);

// Removes `node`, which is in the tree.
void sim_tree_remove(tree* t, tree_node* node);

// The first node at or after, or the last at or before, the key; NULL when there is none.
tree_node* sim_tree_at_least(const tree* t, uint64_t major, uint64_t minor);
tree_node* sim_tree_at_most(const tree* t, uint64_t major, uint64_t minor);

#endif  // CUDASIM_TREE_H_
