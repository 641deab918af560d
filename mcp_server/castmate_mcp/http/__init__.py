"""What every door over HTTP stands on: who calls, how much, in what form it is answered."""
