import CKernelSources
import KVQuantization
import PagedCache

/// `RecordConverter` for the pages of latent attention (nibble_latent.h).
public struct LatentRecordConverter: Sendable {
  public let layout: MLALayout
  private let latent: RecordPart
  private let rope: RecordPart
  private let tileBytes: Int

  /// - Parameter layout: one that `CUDAAttention` serves.
  public init(layout: MLALayout) {
    let tile = nb_latent_tile_of(layout.recipeLatent.rawValue, layout.recipeRope.rawValue)
    self.layout = layout
    tileBytes = Int(tile.bytes)
    latent = RecordPart(
      recipe: layout.recipeLatent, dimension: layout.latentDimension, codeOffset: tile.latent_codes,
      scaleOffset: tile.latent_scales, position: nb_latent_position, scale: nb_latent_scale_byte)
    rope = RecordPart(
      recipe: layout.recipeRope, dimension: layout.ropeDimension, codeOffset: tile.rope_codes,
      scaleOffset: tile.rope_scales, position: nb_latent_position, scale: nb_latent_scale_byte)
  }

  /// Writes one canonical row into a record. The record's other rows keep their bytes.
  /// - Parameters:
  ///   - isLatent: the latent, or the rotary key.
  ///   - token: place in the page.
  public func scatter(
    codes: UnsafePointer<UInt8>, scales: UnsafePointer<UInt8>, isLatent: Bool, token: Int,
    into record: UnsafeMutablePointer<UInt8>
  ) {
    let tile = token / Int(NB_TILE_TOKENS) * tileBytes
    (isLatent ? latent : rope).scatter(
      codes: codes, scales: scales, row: token % Int(NB_TILE_TOKENS), into: record + tile)
  }

  /// Reads one canonical row from a record; the inverse of `scatter`.
  public func gather(
    isLatent: Bool, token: Int, from record: UnsafePointer<UInt8>, codes: UnsafeMutablePointer<UInt8>,
    scales: UnsafeMutablePointer<UInt8>
  ) {
    let tile = token / Int(NB_TILE_TOKENS) * tileBytes
    (isLatent ? latent : rope).gather(
      row: token % Int(NB_TILE_TOKENS), from: record + tile, codes: codes, scales: scales)
  }
}
