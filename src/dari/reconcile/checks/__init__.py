"""What the doctor looks at, a module for each kind of thing. Each finds; reconcile/doctor.py mends."""
