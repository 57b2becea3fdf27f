"""What schedules the jobs: files to hand to other systems, and what makes them."""
