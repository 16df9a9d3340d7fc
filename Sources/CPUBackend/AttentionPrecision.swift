import CSIMD
import KVQuantization

/// To how many bits `FastAttention` rounds queries and probabilities where it multiplies them with four-bit codes in integers: with
/// AVX-512. Other levels and other recipes multiply floats and round nothing, whatever is chosen.
public enum AttentionPrecision: String, CaseIterable, Hashable, Sendable {
  /// 23 bits: an error of 6e-7, float32's own. Logits follow those of an implementation in float32.
  case full
  /// 16 bits: an error of 5e-5, a thousandth of what four-bit keys and values cost, for two thirds of the multiplications.
  /// It flips some of the codes that later layers store, so logits move by 1e-2 or so within what the cache's own rounding allows.
  case fast

  /// Whether the choice changes anything at a level, for keys and values in these recipes (MLA: both the latent's).
  public static func matters(at level: nb_level, key: KVRecipe, value: KVRecipe) -> Bool {
    level == NB_LEVEL_AVX512 && (key.codeBits == 4 || value.codeBits == 4)
  }
}
