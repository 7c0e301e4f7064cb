module davit.dev/davit/demo

go 1.26

require (
	davit.dev/davit/testbed v0.0.0
	davit.dev/davit/testbed/shop v0.0.0
)

replace (
	davit.dev/davit/testbed => ../testbed
	davit.dev/davit/testbed/shop => ../testbed/shop
)
