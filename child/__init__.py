"""The forked side: what runs in the zygote and in each task process. The only package that imports modules."""
