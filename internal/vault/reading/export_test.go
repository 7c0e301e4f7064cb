package reading

// The model goes through all orders of calls: each look more is one more of them.
func init() { looks, lookAgain = 2, 0 }
