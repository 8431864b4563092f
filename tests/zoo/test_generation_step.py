import torch

from gnomon.zoo.text import generation_step


def test_a_step_on_the_cache_equals_a_pass_over_the_whole_text():
    torch.manual_seed(0)
    model = generation_step.build(n_layer=2, n_embd=32, n_head=4, vocab_size=101, n_positions=16).eval()
    tokens = torch.randint(0, 101, (2, 9))
    with torch.inference_mode():
        whole = model.gpt2(input_ids=tokens, use_cache=False).logits[:, -1:]
        cache = model.gpt2(input_ids=tokens[:, :-1], use_cache=True).past_key_values
        keys = torch.stack([layer.keys for layer in cache.layers])
        values = torch.stack([layer.values for layer in cache.layers])
        step = model(tokens[:, -1:], keys, values)
    torch.testing.assert_close(step, whole)
