"""The Responses API as another presentation of the same task: how it is asked, and how its answer is written."""
