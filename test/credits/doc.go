// Package credits tests credits between processes: the real daemon lends, and
// clients that are processes of their own borrow, are stopped and die.
package credits
