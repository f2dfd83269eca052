#include "cudasim/tree.h"

#include <stdbool.h>
#include <stddef.h>

static uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x7fb5d329728ea185u;
  x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44du;
  return x ^ (x >> 33);
}

static bool less(const tree_node* node, uint64_t major, uint64_t minor) {
  return node->major != major ? node->major < major : node->minor < minor;
}

void sim_tree_insert(tree* t, tree_node* node) {
  node->priority = mix(node->major ^ mix(node->minor));
  tree_node** link = &t->root;
  while (*link && (*link)->priority >= node->priority) {
    link = less(*link, node->major, node->minor) ? &(*link)->right : &(*link)->left;
  }
  tree_node* below = *link;
  *link = node;
  // Unzips what was here into the part before the node and the part after it.
  tree_node** before = &node->left;
  tree_node** after = &node->right;
  while (below) {
    if (less(below, node->major, node->minor)) {
      *before = below;
      before = &below->right;
      below = below->right;
    } else {
      *after = below;
      after = &below->left;
      below = below->left;
    }
  }
  *before = *after = NULL;
}

void sim_tree_remove(tree* t, tree_node* node) {
  tree_node** link = &t->root;
  while (*link != node) {
    link = less(*link, node->major, node->minor) ? &(*link)->right : &(*link)->left;
  }
  tree_node* before = node->left;
  tree_node* after = node->right;
  while (before && after) {
    if (before->priority >= after->priority) {
      *link = before;
      link = &before->right;
      before = before->right;
    } else {
      *link = after;
      link = &after->left;
      after = after->left;
    }
  }
  *link = before ? before : after;
}

tree_node* sim_tree_at_least(const tree* t, uint64_t major, uint64_t minor) {
  tree_node* found = NULL;
  for (tree_node* node = t->root; node;) {
    if (less(node, major, minor)) {
      node = node->right;
    } else {
      found = node;
      node = node->left;
    }
  }
  return found;
}

tree_node* sim_tree_at_most(const tree* t, uint64_t major, uint64_t minor) {
  tree_node* found = NULL;
  for (tree_node* node = t->root; node;) {
    bool after = !less(node, major, minor) && (node->major != major || node->minor != minor);
    if (after) {
      node = node->left;
    } else {
      found = node;
      node = node->right;
    }
  }
  return found;
}
