import CKernelSources
import KVQuantization
import PagedCache

/// Brings canonical rows (formats.md: packed codes, one byte a block scale) into the byte order of the GPU's page records and
/// back. nibble_kernels.h defines that order; this walks its functions once and keeps the places in tables.
public struct RecordConverter: Sendable {
  public let layout: MHALayout
  private let keys: RecordPart
  private let values: RecordPart
  private let tileBytes: Int32

  /// - Parameter layout: one that `CUDAAttention` serves.
  public init(layout: MHALayout) {
    let tile = nb_tile_of(layout.recipeK.rawValue, layout.recipeV.rawValue, Int32(layout.headDimension))
    self.layout = layout
    tileBytes = tile.bytes
    keys = RecordPart(
      recipe: layout.recipeK, dimension: layout.headDimension, codeOffset: tile.key_codes, scaleOffset: tile.key_scales,
      position: nb_key_position, scale: nb_key_scale_byte)
    values = RecordPart(
      recipe: layout.recipeV, dimension: layout.headDimension, codeOffset: tile.value_codes,
      scaleOffset: tile.value_scales, position: nb_value_position, scale: nb_value_scale_byte)
  }

  /// Where a token's tile starts in its page's record.
  private func tileStart(head: Int, token: Int) -> Int {
    Int(nb_tile_offset(tileBytes, layout.pageShift, Int32(head), Int32(token)))
  }

  /// Writes one canonical row into a record. The record's other rows keep their bytes.
  /// - Parameters:
  ///   - isKey: keys, or values.
  ///   - token: place in the page.
  public func scatter(
    codes: UnsafePointer<UInt8>, scales: UnsafePointer<UInt8>, isKey: Bool, head: Int, token: Int,
    into record: UnsafeMutablePointer<UInt8>
  ) {
    (isKey ? keys : values).scatter(
      codes: codes, scales: scales, row: token % Int(NB_TILE_TOKENS), into: record + tileStart(head: head, token: token)
    )
  }

  /// Reads one canonical row from a record; the inverse of `scatter`.
  public func gather(
    isKey: Bool, head: Int, token: Int, from record: UnsafePointer<UInt8>, codes: UnsafeMutablePointer<UInt8>,
    scales: UnsafeMutablePointer<UInt8>
  ) {
    (isKey ? keys : values).gather(
      row: token % Int(NB_TILE_TOKENS), from: record + tileStart(head: head, token: token), codes: codes, scales: scales
    )
  }
}
