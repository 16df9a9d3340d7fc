import CSIMD

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Rows without a token any more: nothing of what was there may reach a reader.
extension PagePool {
  /// Zeroes the rows of positions in all layers: nothing is left of tokens that were tried and rejected.
  /// - Parameter pages: the page table of the sequence; it covers `positions`.
  public func erase(_ positions: Range<Int>, pages: some RandomAccessCollection<Int32>) {
    var position = positions.lowerBound
    while position < positions.upperBound {
      let slot = position % layout.pageSize
      let end = min(layout.pageSize, slot + positions.upperBound - position)
      let page = Int(pages[pages.index(pages.startIndex, offsetBy: position / layout.pageSize)])
      erase(rows: slot..<end, ofPageAt: bytes(ofPage: page))
      position += end - slot
    }
  }

  /// Zeroes rows of a page, in the pool or a copy of it, in all layers; the bytes of its other rows stay.
  func erase(rows: Range<Int>, ofPageAt page: UnsafeMutableRawBufferPointer) {
    guard let base = page.baseAddress else { return }
    // Groups of 16 rows are contiguous; inside a group the rows' bytes alternate.
    let firstGroup = min((rows.lowerBound + 15) / 16 * 16, rows.upperBound)
    let lastGroup = max(rows.upperBound / 16 * 16, firstGroup)
    for layer in 0..<layerCount {
      for region in regions {
        let record = base + layer * recordBytes
        var target = nb_region(region, record: record)
        let codeBytes = region.recipe.codeBytes(dimension: region.dimension)
        let scaleBytes = region.recipe.scaleBytes(dimension: region.dimension)
        for row in rows.lowerBound..<firstGroup { nb_region_scatter_row(&target, Int32(row), zeros, zeros) }
        memset(record + region.codeOffset + firstGroup * codeBytes, 0, (lastGroup - firstGroup) * codeBytes)
        memset(record + region.scaleOffset + firstGroup * scaleBytes, 0, (lastGroup - firstGroup) * scaleBytes)
        for row in lastGroup..<rows.upperBound { nb_region_scatter_row(&target, Int32(row), zeros, zeros) }
      }
    }
  }
}
