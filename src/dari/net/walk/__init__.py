"""The ground explain walks on: a KernelState seen as namespaces with interfaces, addresses, routes and rules."""
